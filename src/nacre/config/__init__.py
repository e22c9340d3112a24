"""Every option, in one frozen tree: defaults, then the TOML file, then NACRE_* variables, then the command line.

What `nacre up` was told is kept in the data folder: its database in the file DATABASE_FILE, its port, hypervisor and
way out in KEPT_FILE. It counts where the TOML file, the variables and the command line say nothing.

The file is `nacre.toml` in the data folder, or what NACRE_CONFIG names. An option `period` of section `scheduler` is
`[scheduler] period = 5` there, and NACRE_SCHEDULER_PERIOD=5 in the environment. Lists in variables are separated by
commas, tables are written as `key:value,key:value`.
"""

from nacre.config.reading import (
    CLOUDS,
    DATABASE_FILE,
    KEPT_BEFORE,
    KEPT_FILE,
    External,
    SettingsError,
    data_folder,
    kept,
    kept_external,
    load,
    options,
    owner,
)
from nacre.config.sections import EVERYWHERE, S3_OPTIONS, Settings, is_loopback

__all__ = ["CLOUDS", "DATABASE_FILE", "EVERYWHERE", "KEPT_BEFORE", "KEPT_FILE", "S3_OPTIONS", "External", "Settings",
           "SettingsError", "data_folder", "is_loopback", "kept", "kept_external", "load", "options", "owner"]
