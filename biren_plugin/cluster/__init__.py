"""The API server: credentials, one client, and watches. Imported only by ways of offering that need it."""
