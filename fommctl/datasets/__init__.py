"""The layout of training data that preprocess writes and train and evaluate read."""
