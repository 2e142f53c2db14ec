"""Read formats of publishers: what files hold, with no knowledge of any data set."""
