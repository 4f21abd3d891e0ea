"""nginx's upstream mechanism: groups of peers, and one request's way to one of them and back."""
