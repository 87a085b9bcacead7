"""Video, image and sound files. The only place that imports PyAV; import the module you need, not the package."""
