"""The layout of training data, which preprocess writes and train and evaluate read."""
