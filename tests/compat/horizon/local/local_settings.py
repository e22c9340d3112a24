"""Horizon's settings for the tests: Horizon imports a site's own settings by this name."""

import os
from pathlib import Path

_folder = Path(os.environ["HORIZON_FOLDER"])

ALLOWED_HOSTS = ["127.0.0.1"]
SECRET_KEY = "of a test"
OPENSTACK_KEYSTONE_URL = os.environ["HORIZON_KEYSTONE"]
OPENSTACK_KEYSTONE_FEDERATION_MANAGEMENT = True
STATIC_ROOT = str(_folder / "static")
SESSION_ENGINE = "django.contrib.sessions.backends.file"
SESSION_FILE_PATH = str(_folder)
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
# What the cloud answered to Horizon, request by request: the test reads it.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "plain"},
        "answers": {"class": "logging.FileHandler", "filename": str(_folder / "answers.log"), "formatter": "plain"},
    },
    "loggers": {
        "horizon": {"handlers": ["console"], "level": "INFO", "propagate": False},
        "openstack_dashboard": {"handlers": ["console"], "level": "INFO", "propagate": False},
        "keystoneauth": {"handlers": ["answers"], "level": "DEBUG", "propagate": False},
        "openstack": {"handlers": ["answers"], "level": "INFO", "propagate": False},
        "novaclient": {"handlers": ["answers"], "level": "DEBUG", "propagate": False},
        "glanceclient": {"handlers": ["answers"], "level": "DEBUG", "propagate": False},
    },
}
