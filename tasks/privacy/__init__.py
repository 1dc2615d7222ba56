"""What an encoder or a method gives away of the images that it was pretrained on."""
