"""Small networks and data sets by name, and the recipes that train them."""
