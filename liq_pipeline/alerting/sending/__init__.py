"""Getting it there: to Kafka and to people, at least once, with bounded attempts and secrets kept.

Lives here: outbox.py (written in the transaction that decided), options.py (what a channel wants, in its own address),
ceiling.py (how much it gets in an hour), digest.py (INFO together), services.py (the words as each service reads them),
webhook.py (our own, signed), delivery.py (takes what is due), channels.py (one message through one address),
pictures.py (what follows the words), answers.py (what a service said), outside.py (calls that end in time and whose
addresses reach no log), heartbeat.py. Does not: what is said (telling/).
"""
