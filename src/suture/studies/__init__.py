"""Studies of the measures themselves: controls with known answers."""

from suture.studies import controls as controls
