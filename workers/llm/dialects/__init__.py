"""How each kind of server spells a request and an answer: one small file each."""
