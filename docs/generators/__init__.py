"""Pages of the site that are made from the code and from files elsewhere in the repository."""
