"""The online service: the HTTP application, its journal, and the process that fetches bundles."""
