"""What tests use: the scripted engine, a daemon of their own, a client's short words, waiting instead of sleeping."""
