"""The served path: one ASGI application with OpenAI's endpoints in front of an engine that serves. Reaches no tensor library."""
