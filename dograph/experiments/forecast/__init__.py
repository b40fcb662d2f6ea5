"""What a recipe will train on and cost, said before it begins: `dograph plan`."""
