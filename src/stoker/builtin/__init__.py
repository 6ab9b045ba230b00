"""The runtimes, policies and schedulers that come with Stoker, registered through the same hooks as anybody's."""
