"""Blocking reads of /sys, /dev, driver files and the management library, and the threads for them."""
