"""From downloaded videos and public lists to the folder that the example trains on."""
