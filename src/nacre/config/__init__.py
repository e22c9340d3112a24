"""Every option, in one frozen tree: defaults, then the TOML file, then NACRE_* variables, then the command line.

One choice is kept in the data folder, in the file DATABASE_FILE: what `nacre up --database` was told. It counts where
the TOML file and the variables say nothing.

The file is `nacre.toml` in the data folder, or what NACRE_CONFIG names. An option `period` of section `scheduler` is
`[scheduler] period = 5` there, and NACRE_SCHEDULER_PERIOD=5 in the environment. Lists in variables are separated by
commas, tables are written as `key:value,key:value`.
"""

from nacre.config.reading import CLOUDS, DATABASE_FILE, SettingsError, data_folder, load, options, owner
from nacre.config.sections import EVERYWHERE, S3_OPTIONS, Settings, is_loopback

__all__ = ["CLOUDS", "DATABASE_FILE", "EVERYWHERE", "S3_OPTIONS", "Settings", "SettingsError", "data_folder",
           "is_loopback", "load", "options", "owner"]
