"""The command line: ``ktrdr`` and its commands, a module for each noun. Stands above client, broker and worker; nothing imports it."""
