"""In charge of the REST surface with which a customer's `twilio` client steers its calls here. See README.md in this folder."""
