"""``python -m kohort.gateway``, as in the image."""

from kohort.gateway.launcher import main

main()
