"""Where the tables are declared: what a migration is compared with."""

MODULES = (
    "nacre.identity.tables",
    "nacre.image.tables",
    "nacre.network.tables",
    "nacre.compute.tables",
    "nacre.compute.catalog_tables",
    "nacre.scheduler.tables",
    "nacre.conductor.tables",
)
