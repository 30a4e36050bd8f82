"""Pictures of finished videos: posters and contact sheets. They need the extra `media`, imported when drawing."""
