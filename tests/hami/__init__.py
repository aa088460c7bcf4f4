"""Tests of hami: the mode in this process, under a stand-in for HAMi's scheduler."""
