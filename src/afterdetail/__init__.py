"""afterdetail: finds the faces and hands of a picture, repaints them, puts them back."""
