"""In charge of remembering: tables, repositories, migrations, recording files, secrets at rest. Imports only `domain`."""
