"""Stage `report`: what was found, on one page, and the model's card."""
