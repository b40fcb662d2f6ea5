"""What reaches a screen, a pipe or a file: any character, whole tables, progress in lines."""
