"""`returnn-lite data`: data sets from your own audio files and texts, in the formats of the recipes in configs/."""
