"""What ``stoker chat`` is made of: what was said and what was typed, as values; and the terminal around them."""
