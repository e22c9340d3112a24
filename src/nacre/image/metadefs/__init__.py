"""Metadata definitions: the vocabularies that say which properties images, flavors and others may carry."""
