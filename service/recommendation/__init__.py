"""Lists of recommendations: what is asked for, what is left out, how it is ranked and paged."""
