"""A Solana chain in this process, without network and without money, to rehearse trading on."""
