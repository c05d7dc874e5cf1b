"""How pages become a site: the events of MkDocs, labs, and the policy."""
