"""`returnn-lite data`: own audio files and texts as data sets, in the file formats of the recipes in configs/."""
