"""What a GPU host without network needs brought along: collected here, unpacked there.

Standard library only: on the host this runs before anything is installed.
"""
