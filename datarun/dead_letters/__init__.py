"""Dead letters: records that somebody could never apply or run, kept with the reason until a person deals with them."""
