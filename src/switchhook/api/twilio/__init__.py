"""Twilio's contracts, as far as we speak them: here we are the client of its REST API, or of a service with the same one."""
