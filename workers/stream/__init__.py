"""The Kafka side: intake, ledger, window, outgoing, and the Faust app that carries them."""
