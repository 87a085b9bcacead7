"""How fast this machine is: the model by device and precision, training, and a whole file from end to end."""
