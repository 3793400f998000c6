"""What marks channels: penalties and importance, one small file a method."""
