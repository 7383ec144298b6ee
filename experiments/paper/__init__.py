"""Tables and plots from the folders of many runs."""
