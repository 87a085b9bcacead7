"""What `batch` is made of: reading and checking job files, the record of what was done, workers."""
