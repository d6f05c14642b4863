"""In charge of recordings: spooled while the call lives, made into the asked file by a worker afterwards or after a restart."""
