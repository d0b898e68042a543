"""``python -m kohort_server``, as in the image."""

from kohort_server.main import main

main()
