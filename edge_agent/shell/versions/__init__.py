"""From a manifest to a version that is here in whole."""
