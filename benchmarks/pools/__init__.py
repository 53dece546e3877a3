"""Our quotes of real pools beside those of the official JavaScript SDKs, on the same recorded swaps, in one run.

`sdk/` is the SDKs' side: what is installed from npm, and a Node program that quotes with it.
"""
