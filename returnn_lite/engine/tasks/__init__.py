"""What `task` names besides training's core: a file a task."""
