"""All that knows django-q2: doorbells, the broker that carries them, and the processes they wake."""
