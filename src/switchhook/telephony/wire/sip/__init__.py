"""In charge of SIP (RFC 3261 and its extensions): messages, digest, transactions, dialogs and the user agent core."""
